"""What the server remembers, in SQLite or PostgreSQL: accounts, tokens, history, counters.

Every function takes a session of ``Database.read()`` or ``Database.write()``; what belongs to a
user is only ever found with that user's id.
"""

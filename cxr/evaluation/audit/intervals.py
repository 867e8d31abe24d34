"""How much is asked before a share is judged."""

from cxr.evaluation.intervals import share_interval as share_interval

TOO_FEW = 20
"""Films below which nothing is said about a share: at 19 of 20 the interval already reaches
from 0.76 to 0.99."""

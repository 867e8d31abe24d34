"""The stages as functions of a configuration: what the scripts call and the tests call too."""

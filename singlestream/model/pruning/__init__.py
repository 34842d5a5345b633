"""Image tokens that the later layers do without: dropped, merged, or hidden.

`config.py` holds the settings, `choose.py` says which tokens stay, `merge.py` which go into which, `kept.py` who is
where in the shorter sequence, and `run.py` runs an encoder with it.
"""

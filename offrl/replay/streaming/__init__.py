"""A replay over data larger than the disk: shards pass through a local cache of limited size, window by window.

A window is as many shards as fit half of the cache. While one is trained on, the next is fetched and ingested in the
other half. Each pass over the data takes the shards in another order, and within a window the order of the transitions
is random over all of it, so that each transition is drawn once a pass. Which ones an update takes is a pure function of
(seed, step), given the dataset and the size of the cache: a run that is resumed draws what it would have drawn.
"""

"""Learning task by task through what is around a net: pipelines, and scales of the target."""

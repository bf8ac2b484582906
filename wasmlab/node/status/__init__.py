"""What became of a Pod: states, records of what happened, and the v1.PodStatus that is told to the API."""

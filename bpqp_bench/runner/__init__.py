"""From a plan to measurements: worker processes, limits, judge, replay."""

"""Runs that come from elsewhere: other trackers' repositories."""

"""Projects: info, parameters, activity."""

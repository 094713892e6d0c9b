"""The job service: accepts jobs from callers, assigns them to workers, and keeps results until their retention ends."""

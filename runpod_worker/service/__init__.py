"""The job service: takes jobs from callers, hands them to workers, keeps every answer until its retention is over."""

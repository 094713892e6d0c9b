"""GPU inference workers, the job service they take jobs from, and a client."""

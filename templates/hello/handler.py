"""Greets the person that the job names."""

from runpod_worker import Worker

worker = Worker()


@worker.handler
def handler(job):
    name = job["input"]["name"]
    return {"greeting": f"Hello, {name}!"}


if __name__ == "__main__":
    worker.start()

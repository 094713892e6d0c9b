"""Sends its answer piece by piece: every `yield` reaches the caller of /stream at once."""

from runpod_worker import Worker

worker = Worker()


@worker.handler(aggregate=True)  # callers of /run and /runsync get all pieces as one list
def handler(job):
    words = job["input"]["text"].split()
    for number, word in enumerate(words, start=1):
        yield {"word": word, "of": len(words), "number": number}


if __name__ == "__main__":
    worker.start()

"""Streams its output: callers of /stream get each value as soon as it is yielded."""

from runpod_worker import Worker

worker = Worker()


@worker.handler(aggregate=True)  # callers of /run and /runsync get a list of all values
def handler(job):
    words = job["input"]["text"].split()
    for number, word in enumerate(words, start=1):
        yield {"word": word, "of": len(words), "number": number}


if __name__ == "__main__":
    worker.start()

"""Works on eight jobs at once, and on all items of each job at once: for handlers that mostly wait."""

import asyncio

from runpod_worker import Worker

worker = Worker()


async def shout(item):
    """Stands for what you wait for: a database, another service, a model behind HTTP."""
    await asyncio.sleep(0.2)
    return item.upper()


@worker.handler(concurrency=8)
async def handler(job):
    async with asyncio.TaskGroup() as group:  # one that fails cancels the others
        tasks = [group.create_task(shout(item)) for item in job["input"]["items"]]
    return {"results": [task.result() for task in tasks]}


if __name__ == "__main__":
    worker.start()

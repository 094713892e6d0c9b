"""Runs eight jobs, and all items of each job, at the same time: for handlers that mostly wait."""

import asyncio

from runpod_worker import Worker

worker = Worker()


async def shout(item):
    """Replace this with your own call: a database, another service, a model behind HTTP."""
    await asyncio.sleep(0.2)
    return item.upper()


@worker.handler(concurrency=8)
async def handler(job):
    async with asyncio.TaskGroup() as group:  # if a task fails, the others are cancelled
        tasks = [group.create_task(shout(item)) for item in job["input"]["items"]]
    return {"results": [task.result() for task in tasks]}


if __name__ == "__main__":
    worker.start()

// RunPod's JavaScript SDK, as its documentation uses it. Prints what it saw as JSON.
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"

const [, , url, modules] = process.argv
const [, baseUrl, name] = url.match(/(.*)\/(.*)/)
const path = createRequire(modules + "/").resolve("runpod-sdk")
const { default: runpodSdk } = await import(pathToFileURL(path))
const endpoint = runpodSdk("key", { baseUrl }).endpoint(name)
const seen = {}

const sync = await endpoint.runSync({ input: { return: "ünï" } }, 60000)
seen.run_sync = [sync.status, sync.output]
const { id } = await endpoint.run({ input: { return: { n: 1 } } })
seen.status_sync = (await endpoint.statusSync(id)).status
seen.output = (await endpoint.status(id)).output
seen.stream = []
const streamed = await endpoint.run({ input: { yield: [1, "two", { three: 3 }] } })
for await (const one of endpoint.stream(streamed.id)) seen.stream.push(one.output)
const failed = await endpoint.runSync({ input: { raise: "broke" } }, 60000)
seen.failed = [failed.status, failed.error.includes("broke")]

const busy = await endpoint.run({ input: { wait: true } })
while ((await endpoint.status(busy.id)).status !== "IN_PROGRESS") await new Promise((go) => setTimeout(go, 50))
for (const n of [0, 1]) await endpoint.run({ input: { return: n } })
seen.health = (await endpoint.health()).jobs.inQueue
seen.purge = await endpoint.purgeQueue()
seen.cancel = (await endpoint.cancel(busy.id)).status
console.log(JSON.stringify(seen))

// Licensed under the Apache License, Version 2.0; see LICENSE.
//
// Xen Orchestra's client watches a join through events. One JSON object per
// line tells how far it came; the environment says where and with what.

import { Xapi } from 'xen-api'

const { POOL_URL, POOL_ADDRESS, JOINER_URL, PASSWORD, TRANSPORT } = process.env
const auth = { user: 'root', password: PASSWORD }

const say = (step, facts = {}) =>
  process.stdout.write(JSON.stringify({ step, ...facts }) + '\n')

const open = (url, options = {}) =>
  new Xapi({ auth, url, transport: TRANSPORT, debounce: 20, ...options })

const until = (xapi, goal) =>
  new Promise(resolve => {
    const look = () => {
      const found = goal()
      if (found) {
        xapi.objects.removeListener('add', look)
        xapi.objects.removeListener('update', look)
        xapi.objects.removeListener('remove', look)
        resolve(found)
      }
    }
    xapi.objects.on('add', look)
    xapi.objects.on('update', look)
    xapi.objects.on('remove', look)
    look()
  })

const count = xapi => {
  const counts = {}
  for (const object of Object.values(xapi.objects.all)) {
    counts[object.$type] = (counts[object.$type] ?? 0) + 1
  }
  return counts
}

// -- the pool is loaded ----------------------------------------------------

const pool = open(POOL_URL)
await pool.connect()
await pool.objectsFetched
say('loaded', {
  pool: pool.pool.uuid,
  master: pool.pool.$master.uuid,
  counts: count(pool),
})

// -- a join, seen through events ---------------------------------------------

const joiner = open(JOINER_URL, { watchEvents: false })
await joiner.connect()
const [{ uuid }] = Object.values(await joiner.call('host.get_all_records'))
const host = () => pool.objects.all[uuid]

const seen = []
const note = () => {
  const record = host()
  const word =
    record === undefined
      ? 'absent'
      : `enabled=${record.enabled} live=${record.$metrics?.live}`
  if (seen[seen.length - 1] !== word) {
    seen.push(word)
  }
}
note()
for (const event of ['add', 'update', 'remove']) {
  pool.objects.on(event, note)
}

await joiner.call('pool.join', POOL_ADDRESS, 'root', PASSWORD)
say('joined')
await until(pool, () => host()?.enabled && host().$metrics?.live)
note()
say('enabled', {
  uuid,
  seen,
  hosts: Object.values(pool.objects.indexes.type.host).length,
  pifs: host().$PIFs.map(pif => pif.device).sort(),
  networks: host().$PIFs.every(pif => pif.$network !== undefined),
})

// -- writes come back as events, and tasks settle through them -----------------

await pool.barrier()
say('barrier')
const ref = host().$ref
await pool.callAsync('host.disable', ref)
await until(pool, () => host().enabled === false)
await pool.call('host.enable', ref)
await until(pool, () => host().enabled)
say('operated')

// -- a member sends its callers to the coordinator -----------------------------

const member = open(JOINER_URL)
await member.connect()
await member.objectsFetched
say('redirected', { pool: member.pool.uuid })
await member.disconnect()

// -- a refusal has a code and parameters ---------------------------------------

try {
  await pool.call('host.get_record', 'OpaqueRef:none')
} catch ({ code, params }) {
  say('refused', { code, params })
}

// -- the host leaves ---------------------------------------------------------------

await pool.call('pool.eject', ref)
await until(pool, () => host() === undefined)
say('ejected')
await pool.disconnect()
say('done')
process.exit(0)

-- Renews a node's lease and tells it all that it has to know twice a second.
--
-- An epoch is one memory in one life of one primary: INFO's master_replid is another whenever a Redis starts, and when
-- a replica is promoted. Both may have lost the last claims that were granted (the append-only file is flushed once a
-- second, a replica lags a little), and nobody can tell which. So whatever was claimed counts no more: the holders
-- assert theirs, the same as after a loss of all memory. (The id also changes when the first replica is attached, and
-- an hour after the last one left: one more grace, and no harm.)
--
-- KEYS  epoch, leases, nodes, broken, version, claims
-- ARGV  lease id, "join" | "renew", TTL in ms, node name, facts (JSON), a random epoch in case a new one begins
-- Returns {state, epoch, ms since the epoch was born, version of the registrations,
--          list of other live leases, list of "<token> <mailbox key>" of claims that were broken}
--   state "ok"       the lease lives for another TTL
--   state "gone"     renew: there is no such lease (it lapsed, was reaped, or this is another epoch)
--   state "taken"    join: a live lease has this node's name
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lease, mode, ttl, name, facts = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local told = redis.pcall('INFO', 'replication')
local memory = type(told) == 'string' and string.match(told, 'master_replid:(%x+)')
if not memory then return redis.error_reply('ERR we are not shown master_replid in INFO replication; allow the command to our user') end
local epoch = redis.call('GET', KEYS[1])
if not epoch or string.match(epoch, ' (%x+) %d+$') ~= memory then
    epoch = ARGV[6] .. ' ' .. memory .. ' ' .. string.format('%d', now)
    redis.call('SET', KEYS[1], epoch)
    redis.call('DEL', KEYS[2], KEYS[6])
end
local born = tonumber(string.match(epoch, ' (%d+)$'))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local state = 'ok'
if mode == 'renew' and not redis.call('ZSCORE', KEYS[2], lease) then
    state = 'gone'
elseif mode == 'join' then
    local former = redis.call('HGET', KEYS[3], name)
    if former then
        local former_lease = cjson.decode(former)['lease']
        if former_lease ~= lease and redis.call('ZSCORE', KEYS[2], former_lease) then state = 'taken' end
    end
end
if state == 'ok' then
    redis.call('ZADD', KEYS[2], now + ttl, lease)
    redis.call('HSET', KEYS[3], name, facts)
end
local others, broken = {}, {}
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if other ~= lease then others[#others + 1] = other end
end
local marks = redis.call('HGETALL', KEYS[4])
for i = 1, #marks, 2 do
    local owner, token = string.match(marks[i], '^(%S+) (%S+)$')
    if owner == lease then
        broken[#broken + 1] = token .. ' ' .. marks[i + 1]
        redis.call('HDEL', KEYS[4], marks[i])
    elseif not redis.call('ZSCORE', KEYS[2], owner) then
        redis.call('HDEL', KEYS[4], marks[i])
    end
end
return {state, epoch, now - born, tonumber(redis.call('GET', KEYS[5]) or '0'), others, broken}

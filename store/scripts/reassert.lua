-- In a new epoch of the ledger: puts a lease and all its claims back, while new ones are not granted yet.
--
-- KEYS  epoch, leases, claims
-- ARGV  lease id, TTL in ms, grace in ms, then pairs: mailbox key, token
-- Returns {"ok" | "late" | "former", mailbox keys that somebody else has}
--   "late"   the grace is over: others may have held and dropped the mailboxes meanwhile, so nothing is put back
--   "former" the ledger has begun another life since (beat.lua): the next beat tells of its epoch
redis.call('HDEL', KEYS[3], '')  -- A write that changes nothing, and fails where a write would (claims.lua).
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local epoch = redis.call('GET', KEYS[1])
local born = epoch and tonumber(string.match(epoch, ' (%d+)$'))
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if epoch and string.match(epoch, ' (%x+) %d+$') ~= memory then return {'former', {}} end
if not born or now >= born + tonumber(ARGV[3]) then return {'late', {}} end
local lease = ARGV[1]
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), lease)
local lost = {}
for i = 4, #ARGV, 2 do
    local mine = lease .. ' ' .. ARGV[i + 1] .. ' '
    local value = redis.call('HGET', KEYS[3], ARGV[i])
    if not value then
        redis.call('HSET', KEYS[3], ARGV[i], mine .. string.format('%d', now))
    elseif string.sub(value, 1, #mine) ~= mine then
        lost[#lost + 1] = ARGV[i]
    end
end
return {'ok', lost}

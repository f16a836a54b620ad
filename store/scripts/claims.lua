-- Takes, confirms and drops any number of claims of one lease in one step.
--
-- KEYS  leases, claims, epoch, broken
-- ARGV  lease id, grace in ms, then triples: operation ("take" | "confirm" | "drop"), mailbox key, token
-- Returns a list with one answer for each triple:
--   "ok"          it is done (a repeated take or drop is "ok" again: the network may have swallowed the answer)
--   "held <who>"  take: a live lease holds it; <who> is the claim's value
--   "lost"        confirm: the claim is not this token's any more
--   "lapsed"      take, confirm: the lease itself is gone, or belongs to the former epoch
--   "grace"       take: the ledger is new, and the claims of its former life may not have been asserted yet
-- Fails with READONLY or NOREPLICAS on a Redis that was demoted or cut off: what it remembers may be history.
--
-- Another life of the ledger (beat.lua) is seen here too: a claim may be asked for before the first beat. INFO costs
-- 3 microseconds an exchange. Rejected: to ask a connection once which memory it leads to. The id can change while the
-- connection lives, and the answer would be older than the step that rests on it.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function lives(lease)
    local lapses = redis.call('ZSCORE', KEYS[1], lease)
    return lapses and tonumber(lapses) > now
end
redis.call('HDEL', KEYS[4], '')  -- A write that changes nothing, and fails where a write would.
local lease = ARGV[1]
local epoch = redis.call('GET', KEYS[3])
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local is_former = epoch and string.match(epoch, ' (%x+) %d+$') ~= memory
local alive = not is_former and lives(lease)
local born = epoch and tonumber(string.match(epoch, ' (%d+)$'))
local grace = not born or now < born + tonumber(ARGV[2])
local answers = {}
for i = 3, #ARGV, 3 do
    local operation, mailbox, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local mine = lease .. ' ' .. token
    local value = redis.call('HGET', KEYS[2], mailbox)
    local is_mine = value and string.sub(value, 1, #mine + 1) == mine .. ' '
    local answer
    if operation == 'drop' then
        if is_mine then redis.call('HDEL', KEYS[2], mailbox) end
        redis.call('HDEL', KEYS[4], mine)
        answer = 'ok'
    elseif is_former and operation == 'take' then
        answer = 'grace'
    elseif not alive then
        answer = 'lapsed'
    elseif is_mine then
        answer = 'ok'
    elseif operation == 'confirm' then
        answer = 'lost'
    elseif grace then
        answer = 'grace'
    elseif value and lives(string.match(value, '^(%S+)')) then
        answer = 'held ' .. value
    else
        redis.call('HSET', KEYS[2], mailbox, mine .. ' ' .. string.format('%d', now))
        answer = 'ok'
    end
    answers[#answers + 1] = answer
end
return answers

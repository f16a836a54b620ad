-- Ends a lease: its claims are free at this instant. A node leaves so, or others have seen that it died.
--
-- KEYS  leases, nodes
-- ARGV  lease id, node name or "" (a node that leaves takes its facts along; a dead one's stay for the status)
local ended = redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[2] ~= '' then
    local facts = redis.call('HGET', KEYS[2], ARGV[2])
    if facts and cjson.decode(facts)['lease'] == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[2]) end
end
return ended

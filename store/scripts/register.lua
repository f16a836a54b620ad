-- Writes one domain's registration as the next entry of the log.
--
-- KEYS  domains, changes, version
-- ARGV  domain, "add" | "restore" | "delete" | "lock" | "unlock", who
--   "restore" is "add" by a node that found the directory: it never undoes a deletion
-- Returns {1 if anything changed else 0, the registration as JSON, or ""}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local domain, verb, who = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HGET', KEYS[1], domain)
local record = known and cjson.decode(known)
local present = record and not record.deleted
if (verb == 'add' and present) or (verb == 'restore' and record) or (verb ~= 'add' and verb ~= 'restore' and not present)
    or (verb == 'lock' and record.locked) or (verb == 'unlock' and not record.locked) then
    return {0, known or ''}
end
local version = redis.call('INCR', KEYS[3])
local locked = (verb == 'lock') or (record and record.locked and verb ~= 'unlock' and verb ~= 'add') or false
local text = cjson.encode({
    domain = domain, who = who, when = now, version = version, deleted = (verb == 'delete'), locked = locked })
redis.call('HSET', KEYS[1], domain, text)
redis.call('ZADD', KEYS[2], version, domain)
return {1, text}

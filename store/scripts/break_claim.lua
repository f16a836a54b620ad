-- Breaks the claim on a mailbox, whoever holds it, and leaves word for the holder's next beat.
--
-- KEYS  claims, broken
-- ARGV  mailbox key
-- Returns the value of the claim that was broken, or nil
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('HSET', KEYS[2], string.match(value, '^(%S+ %S+)'), ARGV[1])
end
return value

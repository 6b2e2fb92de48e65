-- health writes a value, as every script that changes something does.
-- KEYS: 1 a key of its own
-- ARGV: 1 its time to live, ms
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return {'ok'}

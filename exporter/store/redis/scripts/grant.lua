-- grant(key, how, credits, nonce) -> 'done'; 'unknown' if there is no such key; 'unlimited' if
--   there is nothing to add to
--
-- How is 'set', 'add' or 'lift' (the bound: the key is not metered any more). The nonce is that of
-- charge.lua.
local key, how, credits, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('EXISTS', 'exporter:credited:' .. nonce) == 1 then
  return 'done'
end
if revoked(key) then
  return 'unknown'
end
if how == 'add' and not left_of(key) then
  return 'unlimited'
end
if how == 'lift' then
  redis.call('HDEL', account(key), 'left')
else
  redis.call(how == 'add' and 'HINCRBY' or 'HSET', account(key), 'left', credits)
end
redis.call('SET', 'exporter:credited:' .. nonce, '1', 'EX', 60)
return 'done'

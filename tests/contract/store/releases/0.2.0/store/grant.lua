-- grant(key, action, credits, nonce)
--   -> 'done'; 'unknown' if no key has that id; 'unlimited' for 'add' to a key that is not metered
--
-- The action is 'set' or 'add' (credits), or 'lift' (the key is not metered from now on). The nonce
-- is used as in charge.lua: a second call with the same nonce changes nothing.
local key, action, credits, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('EXISTS', 'exporter:credited:' .. nonce) == 1 then
  return 'done'
end
if is_revoked(key) then
  return 'unknown'
end
if action == 'add' and not credits_left(key) then
  return 'unlimited'
end
if action == 'lift' then
  redis.call('HDEL', account(key), 'left')
else
  redis.call(action == 'add' and 'HINCRBY' or 'HSET', account(key), 'left', credits)
end
redis.call('SET', 'exporter:credited:' .. nonce, '1', 'EX', 60)
return 'done'

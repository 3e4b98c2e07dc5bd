-- charge(key, credits, nonce) -> {1} if the key has paid; {0, what it has left} if that is too few
--
-- The nonce is new for each charge that is meant, and the same when a client asks again because it
-- heard no answer: that takes nothing more.
local key, credits, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', 'exporter:credited:' .. nonce) == 1 then
  return {1}
end
local left = left_of(key)
if left and left < credits then
  return {0, left}
end
redis.call('SET', 'exporter:credited:' .. nonce, '1', 'EX', 60)
if left then
  redis.call('HINCRBY', account(key), 'left', -credits)
  count('credits_reserved', credits)
  count('credits_charged', credits)
end
redis.call('HINCRBY', account(key), 'used', credits)
return {1}

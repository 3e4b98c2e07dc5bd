-- charge(key, credits, nonce, 'final' or 'first')
--   -> {1} if charged; {0, credits left} if the key has too few
--
-- The nonce is new for each charge. A client that lost the answer repeats the call with the same
-- nonce, and nothing more is charged. A "first" charge is made before the number of records is
-- known; refund.lua ends it.
local key, credits, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', 'exporter:credited:' .. nonce) == 1 then
  return {1}
end
local left = credits_left(key)
if left and left < credits then
  return {0, left}
end
redis.call('SET', 'exporter:credited:' .. nonce, '1', 'EX', 60)
if left then
  redis.call('HINCRBY', account(key), 'left', -credits)
  count('credits_reserved', credits)
  if ARGV[4] ~= 'first' then
    count('credits_charged', credits)
  end
end
redis.call('HINCRBY', account(key), 'used', credits)
return {1}

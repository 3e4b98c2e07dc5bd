-- refund(key, credits, charged, nonce) -> 1
--
-- Ends a charge that was made before the number of records was known: gives `credits` back to the
-- key, and counts the `charged` ones. The nonce is used as in charge.lua.
local key, credits, charged, nonce = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

if redis.call('EXISTS', 'exporter:credited:' .. nonce) == 1 then
  return 1
end
redis.call('SET', 'exporter:credited:' .. nonce, '1', 'EX', 60)
count('credits_charged', charged)
if credits > 0 and not is_revoked(key) then
  redis.call('HINCRBY', account(key), 'used', -credits)
  if credits_left(key) then
    redis.call('HINCRBY', account(key), 'left', credits)
  end
  count('credits_given_back', credits)
end
return 1

-- count_states(user or '', from or '', since, until, steps, words as JSON, values as JSON)
--   -> {next or '', number of exports in each state of STATES}
--
-- Without conditions the sizes of the sets are the answer, once they have no expired exports; `next`
-- is AGAIN if they may have more than one call removes.
local MAX_FORGOTTEN = 100
local AGAIN = 'again'
local from, words, values = ARGV[2], cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
local counts = {0, 0, 0, 0, 0}
if #words == 0 and #values == 0 then
  if forget_expired(now(), MAX_FORGOTTEN) == MAX_FORGOTTEN then
    return {AGAIN, unpack(counts)}
  end
  for at, state in ipairs(STATES) do
    counts[at] = redis.call('ZCOUNT', index(ARGV[1], 'state:' .. state), ARGV[3], ARGV[4])
  end
  return {'', unpack(counts)}
end
local next_from = walk(ARGV[1], false, from, ARGV[3], ARGV[4], tonumber(ARGV[5]), {}, words,
  values, function(_, _, found)
    for at, state in ipairs(STATES) do
      if state == found then
        counts[at] = counts[at] + 1
      end
    end
  end)
return {next_from, unpack(counts)}

-- count_states(user or '', from or '', since, until, steps, words as JSON, values as JSON)
--   -> {next or '', number of exports in each state of STATES}
--
-- Without conditions the sizes of the sets are the answer.
local words, values = cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
local counts = {0, 0, 0, 0, 0}
if #words == 0 and #values == 0 then
  for at, state in ipairs(STATES) do
    counts[at] = redis.call('ZCOUNT', index(ARGV[1], 'state:' .. state), ARGV[3], ARGV[4])
  end
  return {'', unpack(counts)}
end
local next_from = walk(ARGV[1], false, ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), {}, words,
  values, function(_, _, found)
    for at, state in ipairs(STATES) do
      if state == found then
        counts[at] = counts[at] + 1
      end
    end
  end)
return {next_from, unpack(counts)}

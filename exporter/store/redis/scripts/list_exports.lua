-- list_exports(user or '', oldest '1' or '0', from or '', since, until, steps, limit,
--              states as JSON, words as JSON, values as JSON)
--   -> {next or '', id, score, …}
local ids = {}
local limit = tonumber(ARGV[7])
local next_from = walk(ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]),
  cjson.decode(ARGV[8]), cjson.decode(ARGV[9]), cjson.decode(ARGV[10]),
  function(id, score)
    table.insert(ids, id)
    table.insert(ids, int(score))
    return #ids >= 2 * limit
  end)
return {next_from, unpack(ids)}

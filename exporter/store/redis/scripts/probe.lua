-- probe(commands) -> {index, error, …}
--
-- Runs commands on KEYS, given as a JSON list of lists, and returns the error of each one that was refused.
-- A script is atomic, so no other client sees the keys of the commands if the last one deletes them.
local refused = {}
for index, command in ipairs(cjson.decode(ARGV[1])) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = index
    refused[#refused + 1] = answer.err
  end
end
return refused

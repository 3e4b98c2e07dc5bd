-- acquire(requests, window)
--   -> the answer of the function `acquire` in window.lua
--
-- KEYS[1]   list   times of the counted requests in the window, newest first
return acquire(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))

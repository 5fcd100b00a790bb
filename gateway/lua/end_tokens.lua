-- end_tokens(job, log, open)
-- End all tokens that were given for this stream so far. Returns {'ok'}, or {'unknown'}: there is no such stream.
if redis.call('EXISTS', JOB) == 0 then return { 'unknown' } end
redis.call('HINCRBY', JOB, 'tokens_ended', 1)
return { 'ok' }

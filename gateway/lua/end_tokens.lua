-- end_tokens(job, log, open)
-- All tokens that were given for this stream so far are ended. Answers {'ok'}, or {'unknown'}: there is no such stream.
if redis.call('EXISTS', JOB) == 0 then return { 'unknown' } end
redis.call('HINCRBY', JOB, 'tokens_ended', 1)
return { 'ok' }

-- Get organization summary with job counts
SELECT
    o.name as org_name,
    COUNT(jm.job_id) as total_jobs,
    o.quotas->>'max_concurrent_jobs' as job_limit
FROM organizations o
LEFT JOIN jobs_meta jm ON o.org_id = jm.org_id
GROUP BY o.org_id, o.name, o.quotas;

-- Cross-database job analysis (requires application logic)
-- 1. Get job metadata from shared DB
-- 2. Get job details from org-specific results DB
-- 3. Combine results in application layer

-- Monitor connection usage
SELECT
    datname,
    state,
    count(*) as connections
FROM pg_stat_activity
WHERE datname LIKE 'mad%'
GROUP BY datname, state;

-- Check database sizes
SELECT
    datname,
    pg_size_pretty(pg_database_size(datname)) as size
FROM pg_database
WHERE datname LIKE 'mad%'
ORDER BY pg_database_size(datname) DESC;

"""Reference SQL of the ETL workloads for DuckDB, independent of their plans and kernels.

Texts have no LIMIT: the oracle cuts, so that it sees ties at the edge. ``{name}`` is a parameter of the kernel.
"""

from __future__ import annotations

REFERENCE: dict[str, str] = {
    "tpch_q1": """
        SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
               sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
               sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
               avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc,
               count(*) AS count_order
        FROM lineitem WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL 90 DAY
        GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus""",
    "tpch_q3": """
        SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
        FROM customer, orders, lineitem
        WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
          AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
        GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate""",
    "tpch_q5": """
        SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
        FROM customer, orders, lineitem, supplier, nation, region
        WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
          AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'ASIA'
          AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1994-01-01' + INTERVAL 1 YEAR
        GROUP BY n_name ORDER BY revenue DESC""",
    "tpch_q6": """
        SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
        WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1994-01-01' + INTERVAL 1 YEAR
          AND l_discount::DECIMAL(15,2) BETWEEN 0.06 - 0.01 AND 0.06 + 0.01 AND l_quantity < 24""",
    "tpch_q12": """
        SELECT l_shipmode,
               sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 1 ELSE 0 END) AS high_line_count,
               sum(CASE WHEN o_orderpriority NOT IN ('1-URGENT', '2-HIGH') THEN 1 ELSE 0 END) AS low_line_count
        FROM orders, lineitem
        WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate
          AND l_shipdate < l_commitdate AND l_receiptdate >= DATE '1994-01-01'
          AND l_receiptdate < DATE '1994-01-01' + INTERVAL 1 YEAR
        GROUP BY l_shipmode ORDER BY l_shipmode""",
    "tpch_q18": """
        SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) AS sum_qty
        FROM customer, orders, lineitem
        WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 300)
          AND c_custkey = o_custkey AND o_orderkey = l_orderkey
        GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice ORDER BY o_totalprice DESC, o_orderdate""",
    "flights_udf": r"""
        WITH read AS (
            SELECT *, upper(regexp_extract(flight, '^\s*([A-Za-z0-9]{{2}})[0-9]{{1,4}}$', 1)) AS code,
                   CAST(planned[1:2] AS BIGINT) * 60 + CAST(planned[3:4] AS BIGINT) AS due,
                   CASE WHEN departure = 'NA' THEN -1
                        WHEN regexp_full_match(departure, '([01][0-9]|2[0-3])[0-5][0-9]')
                        THEN CAST(departure[1:2] AS BIGINT) * 60 + CAST(departure[3:4] AS BIGINT)
                        WHEN regexp_full_match(departure, '([01][0-9]|2[0-3]):[0-5][0-9]')
                        THEN CAST(departure[1:2] AS BIGINT) * 60 + CAST(departure[4:5] AS BIGINT)
                        WHEN regexp_full_match(departure, '([1-9]|1[0-2]):[0-5][0-9] (AM|PM)')
                        THEN (CAST(split_part(departure, ':', 1) AS BIGINT) % 12) * 60
                             + CAST(split_part(departure, ':', 2)[1:2] AS BIGINT)
                             + CASE WHEN departure LIKE '%PM' THEN 720 ELSE 0 END
                        ELSE -2 END AS gone
            FROM flights),
        judged AS (
            SELECT *, CASE WHEN code = '' OR gone = -2 THEN 'malformed' WHEN gone = -1 THEN 'cancelled'
                           ELSE 'flew' END AS state,
                   CASE WHEN gone - due < -360 THEN gone - due + 1440 WHEN gone - due >= 1080 THEN gone - due - 1440
                        ELSE gone - due END AS late
            FROM read)
        SELECT CASE WHEN code = '' THEN '??' ELSE code END AS carrier, month(CAST(day AS DATE)) AS month,
               CASE WHEN state <> 'flew' THEN state WHEN late < 0 THEN 'early' WHEN late < 15 THEN 'on_time'
                    WHEN late < 60 THEN 'late' ELSE 'very_late' END AS category,
               count(*) AS flights,
               avg(CASE WHEN state = 'flew' THEN late ELSE 0 END) AS delay_mean,
               max(CASE WHEN state = 'flew' THEN late ELSE 0 END) AS delay_max,
               sum(CASE WHEN state = 'flew' THEN distance ELSE 0 END) AS distance,
               sum(CASE WHEN state = 'flew' THEN distance * passengers ELSE 0 END) AS seat_miles
        FROM judged GROUP BY 1, 2, 3""",
    "logs_udf": r"""
        WITH kinds AS (
            SELECT line, line LIKE '{{%' AND json_valid(line) AS is_json,
                   regexp_full_match(line, '[0-9-]+ [0-9:]+ [a-z]+ GET [^ ]+ -> [0-9]+ [0-9.]+ms [0-9]+B') AS is_legacy
            FROM logs),
        parts AS (
            SELECT is_json, is_legacy, string_split(line, ' ') AS word,
                   CASE WHEN is_json THEN line ELSE '{{}}' END AS doc
            FROM kinds),
        fields AS (
            SELECT is_legacy OR (is_json AND json_type(doc, '$.ms') IN ('DOUBLE', 'UBIGINT', 'BIGINT')) AS readable,
                   CASE WHEN is_legacy THEN word[3] ELSE json_extract_string(doc, '$.service') END AS service,
                   CASE WHEN is_legacy THEN word[5] ELSE json_extract_string(doc, '$.path') END AS path,
                   CASE WHEN is_legacy THEN word[7] ELSE json_extract_string(doc, '$.status') END AS status,
                   CASE WHEN is_legacy THEN replace(word[8], 'ms', '') ELSE json_extract_string(doc, '$.ms') END AS ms,
                   CASE WHEN is_legacy THEN rtrim(word[9], 'B') ELSE json_extract_string(doc, '$.bytes') END AS bytes
            FROM parts)
        SELECT CASE WHEN readable THEN service ELSE 'unknown' END AS service,
               CASE WHEN readable THEN regexp_replace(path, '/[0-9]+', '/{{id}}', 'g') ELSE 'unknown' END AS endpoint,
               CASE WHEN readable THEN status[1:1] || 'xx' ELSE 'malformed' END AS outcome,
               count(*) AS requests,
               avg(CASE WHEN readable THEN TRY_CAST(ms AS DOUBLE) ELSE 0 END) AS ms_mean,
               max(CASE WHEN readable THEN TRY_CAST(ms AS DOUBLE) ELSE 0 END) AS ms_max,
               sum(CASE WHEN readable THEN CAST(bytes AS BIGINT) ELSE 0 END) AS bytes,
               sum(CASE WHEN readable AND TRY_CAST(ms AS DOUBLE) >= {slow_ms} THEN 1 ELSE 0 END) AS slow
        FROM fields GROUP BY 1, 2, 3""",
    "skewed_groupby": """
        SELECT key, count(*) AS events, sum(amount) AS amount, avg(value) AS value_mean, max(value) AS value_max
        FROM events GROUP BY key""",
    "sessionization": """
        WITH gaps AS (
            SELECT *, ts_ms - lag(ts_ms) OVER (PARTITION BY user_id ORDER BY ts_ms) AS gap FROM clicks),
        numbered AS (
            SELECT *, sum(CASE WHEN gap > {gap_s} * 1000 THEN 1 ELSE 0 END)
                      OVER (PARTITION BY user_id ORDER BY ts_ms ROWS UNBOUNDED PRECEDING) AS session
            FROM gaps)
        SELECT user_id, session, min(ts_ms) AS start_ms, max(ts_ms) - min(ts_ms) AS duration_ms, count(*) AS clicks,
               sum(bytes) AS bytes
        FROM numbered GROUP BY user_id, session""",
}

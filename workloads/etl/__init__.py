"""Engine-neutral ETL pipelines: TPC-H, Python UDF jobs and shuffles."""

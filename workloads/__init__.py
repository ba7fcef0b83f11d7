"""What is computed: data sets, kernels, pipelines and oracles. Knows no engine, no world and no clock."""

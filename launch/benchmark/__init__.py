"""Speed, measured: python -m launch.benchmark SUBCOMMAND [--flags]"""

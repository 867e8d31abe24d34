"""report: see --help, and cxr/pipeline/report_stage.py."""

from cxr.pipeline.config import PrepareConfig, script
from cxr.pipeline.report_stage import report_stage


@script("report")
def main(config: PrepareConfig) -> None:
    """Run the stage."""
    report_stage(config)


if __name__ == "__main__":
    main()

"""recalibrate: see --help, and cxr/pipeline/recalibrate_stage.py."""

from cxr.pipeline.config import RecalibrateConfig, script
from cxr.pipeline.recalibrate_stage import recalibrate_stage


@script("recalibrate")
def main(config: RecalibrateConfig) -> None:
    """Run the stage."""
    recalibrate_stage(config)


if __name__ == "__main__":
    main()

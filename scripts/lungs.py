"""lungs: see --help, and cxr/pipeline/lungs_stage.py."""

from cxr.pipeline.config import LungsConfig, script
from cxr.pipeline.lungs_stage import lungs_stage


@script("lungs")
def main(config: LungsConfig) -> None:
    """Run the stage."""
    lungs_stage(config)


if __name__ == "__main__":
    main()

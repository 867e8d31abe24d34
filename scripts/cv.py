"""cv: cross-validation; see --help, and cxr/pipeline/cv_stage.py."""

from cxr.pipeline.config import CrossValidateConfig, script
from cxr.pipeline.cv_stage import cv_stage


@script("cv")
def main(config: CrossValidateConfig) -> None:
    """Run the stage."""
    cv_stage(config)


if __name__ == "__main__":
    main()

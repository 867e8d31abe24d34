"""evaluate: see --help, and cxr/pipeline/evaluate_stage.py."""

from cxr.pipeline.config import EvaluateConfig, script
from cxr.pipeline.evaluate_stage import evaluate_stage


@script("evaluate")
def main(config: EvaluateConfig) -> None:
    """Run the stage."""
    evaluate_stage(config)


if __name__ == "__main__":
    main()

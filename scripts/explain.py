"""explain: see --help, and cxr/pipeline/explain_stage.py."""

from cxr.pipeline.config import ExplainConfig, script
from cxr.pipeline.explain_stage import explain_stage


@script("explain")
def main(config: ExplainConfig) -> None:
    """Run the stage."""
    explain_stage(config)


if __name__ == "__main__":
    main()

"""audit: see --help, and cxr/pipeline/audit_stage.py."""

from cxr.pipeline.audit_stage import audit_stage
from cxr.pipeline.config import AuditConfig, script


@script("audit")
def main(config: AuditConfig) -> None:
    """Run the stage."""
    audit_stage(config)


if __name__ == "__main__":
    main()

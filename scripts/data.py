"""data: fetch the public sources; see --help, and cxr/stages/download.py."""

from cxr.config import DownloadConfig, script
from cxr.stages.download import download_stage


@script("download")
def main(config: DownloadConfig) -> None:
    """Run the stage."""
    download_stage(config)


if __name__ == "__main__":
    main()

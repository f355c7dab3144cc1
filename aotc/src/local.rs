//! Runs the compiler of this machine.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use progress::Progress;

use crate::error::Error;
use crate::log::Log;
use crate::process::{self, End};
use crate::shell;
use crate::stage::{CompileTask, Compiler};
use crate::toolchain::Toolchain;

impl Compiler for Toolchain {
    fn version(&self) -> &str {
        &self.version
    }

    fn shares_clock(&self) -> bool {
        true
    }

    fn compile(&mut self, task: &CompileTask<'_>, log: &mut Log, _: &dyn Progress) -> Result<(), Error> {
        let package = task.source.package_path();
        let arguments =
            task.settings.arguments(package.as_os_str(), task.into.as_os_str(), task.architecture);
        let mut command = self.command()?;
        command.args(&arguments);
        let line: Vec<&OsStr> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let line = shell::join(line);
        log.begin(&line).map_err(Error::io("write the log of", &package))?;
        let end = process::run_logged(&mut command, log.file(), task.timeout, task.interrupt);
        let end = end.map_err(|source| Error::NoXcrun { program: command.get_program().into(), source })?;
        let architecture = task.architecture.clone();
        match end {
            End::Exited(status) if status.success() => Ok(()),
            End::Exited(status) => Err(Error::CompileFailed {
                architecture,
                status: describe(status),
                log: Box::new(log.excerpt()),
            }),
            End::TimedOut => {
                Err(Error::TimedOut { architecture, limit: task.timeout, log: Box::new(log.excerpt()) })
            }
            End::Interrupted => Err(Error::Interrupted),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("crashed, signal {signal}"),
        (None, None) => status.to_string(),
    }
}

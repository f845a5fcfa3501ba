//! `quorate recover`: what only an operator may decide about the data directory of a node that is down.

use std::path::Path;
use std::sync::Arc;

use host::config::{self, NodeConfig};
use quorum_log::{Disk, Epochs, Offline as Directory, Owner};

use crate::{
    args::{Offline, Recover},
    exit::{Doing as _, Failure},
    output,
    serve::{ensemble, random_id},
};

pub(crate) fn run(command: &Recover, disk: Arc<dyn Disk>) -> Result<(), Failure> {
    let (Recover::Members(args) | Recover::Copy(args) | Recover::TrustDirectory(args)) = command;
    let settings = &args.settings;
    let node = config::load(settings.config.as_deref(), config::process_env(), &settings.flags())?.node;
    let directory = Directory::open(disk, &node.data_dir).or_refused()?;
    must_be_of(&node, directory.owner())?;
    let log = directory
        .find_log(node.log_dir.as_deref())
        .map_err(|e| Failure::refused(format!("nothing was changed: {e}")))?;
    output::print(&describe(&node, &directory))?;
    match command {
        Recover::Members(_) => members(args, &node, directory, &log),
        Recover::Copy(_) => copy(args, &node, directory),
        Recover::TrustDirectory(_) => trust(args, &node, directory),
    }
}

fn members(args: &Offline, node: &NodeConfig, directory: Directory, log: &Path) -> Result<(), Failure> {
    let owner = directory.owner().clone();
    if owner.id != node.id {
        return Err(other_node(&owner, node));
    }
    let members = ensemble(node)?;
    if members.weight(node.id) == 0 {
        return Err(Failure::usage(format!(
            "node {} could not lead the new ensemble: begin it on a voter with a weight above 0",
            node.id
        )));
    }
    let change = members.difference(&owner.members);
    let change = if change.is_empty() { "the members stay as they are".to_owned() } else { change };
    output::print(&format!(
        "A new ensemble begins with this directory ({change}; \"there\" is the new list, \"here\" the old one).\n\
         Whatever other nodes have acknowledged and this directory does not have is lost. Stop all nodes of the\n\
         old ensemble for good: they would continue on their own, and their clients would not notice."
    ))?;
    confirmed(args)?;
    let id = random_id()?;
    directory.found(log, members.clone(), id, random_run()?).doing("change the data directory")?;
    let voters = members.voters().filter(|&voter| members.weight(voter) > 0).count();
    let next = match voters {
        1 => "Start this node; all others start with empty data directories.".to_owned(),
        _ => format!(
            "Next, until more than half of all {voters} voters have the data, this one included: on another voter, {},\n\
             and use `quorate recover copy`. All other nodes start with empty {}. Then start all nodes.",
            copies(node),
            if node.log_dir.is_some() { "data and log directories" } else { "data directories" },
        ),
    };
    output::print(&format!("Done: the new ensemble has the id {id}.\n{next}"))?;
    Ok(())
}

/// What has to be copied to another node: the data directory, and the log, if it is somewhere else.
fn copies(node: &NodeConfig) -> String {
    let data = node.data_dir.display();
    match &node.log_dir {
        None => {
            format!("move the old data\ndirectory away, put a copy of {data} in its place")
        }
        Some(log) => format!(
            "move the old data\ndirectory and the old log directory away, put a copy of {data} in the place of the first, and one of\n\
             {}, which has the log, in the place of the second, the `log_dir` of that node",
            log.display()
        ),
    }
}

fn copy(args: &Offline, node: &NodeConfig, directory: Directory) -> Result<(), Failure> {
    let owner = directory.owner().clone();
    if owner.id == node.id {
        return Err(Failure::usage(format!(
            "the data directory {} is the one of node {} already: there is nothing to do",
            node.data_dir.display(),
            node.id
        )));
    }
    let difference = owner.members.difference(&ensemble(node)?);
    if !difference.is_empty() {
        return Err(Failure::usage(format!(
            "the copy belongs to an ensemble with other members: {difference} (\"there\" is the copy, \"here\" the \
             configuration). Give all nodes the same `members`, those that `quorate recover members` was used with"
        )));
    }
    output::print(&format!(
        "This copy of node {}'s directory becomes the one of node {}. What node {} had itself is not in it.",
        owner.id, node.id, node.id
    ))?;
    confirmed(args)?;
    directory.hand_to(node.id, random_run()?).doing("change the data directory")?;
    output::print("Done.")?;
    Ok(())
}

fn trust(args: &Offline, node: &NodeConfig, directory: Directory) -> Result<(), Failure> {
    if directory.owner().id != node.id {
        return Err(other_node(directory.owner(), node));
    }
    output::print(
        "This directory counts as whole from now on, whatever other nodes say of it. Whatever it has acknowledged before and lost\n\
         since is lost for good, unless another node that votes has it.",
    )?;
    confirmed(args)?;
    directory.trust(random_run()?).doing("change the data directory")?;
    output::print("Done. Start the node.")?;
    Ok(())
}

fn must_be_of(node: &NodeConfig, owner: &Owner) -> Result<(), Failure> {
    if owner.ensemble == node.ensemble {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the data directory {} belongs to ensemble {:?}, and the configuration to {:?}: name the right one with --config or \
         --data-dir",
        node.data_dir.display(),
        owner.ensemble,
        node.ensemble
    )))
}

fn other_node(owner: &Owner, node: &NodeConfig) -> Failure {
    Failure::usage(format!(
        "the data directory {} belongs to node {}, and the configuration to node {}: name the right one with --config or \
         --data-dir; a copy of another node's directory is made this node's with `quorate recover copy`",
        node.data_dir.display(),
        owner.id,
        node.id
    ))
}

fn describe(node: &NodeConfig, directory: &Directory) -> String {
    let Owner { ensemble, id, members } = directory.owner();
    let Epochs { current, damage, ensemble: ensemble_id, .. } = directory.epochs();
    let ensemble_id = ensemble_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    format!(
        "{}: node {id} of ensemble {ensemble:?}, id {ensemble_id}, members {members}, epoch {current}, damage {damage:?}",
        node.data_dir.display()
    )
}

/// Of an incarnation.
fn random_run() -> Result<u64, Failure> {
    getrandom::u64().doing("draw a random number")
}

fn confirmed(args: &Offline) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    Err(Failure::refused("nothing was changed; add --yes to do it".to_owned()))
}

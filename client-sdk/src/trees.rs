//! The verbs that concern more than one znode, and quotas.

use std::{future::IntoFuture, pin::Pin};

use api::{
    Child, DeleteTree, Expected, Listing, Look, OpError, Page, Path, Quota, QuotaAt, Read, ReadLevel,
    ReadOutcome, Stat, Usage, Write, WriteOutcome, Zxid,
};

use crate::{Client, ClientError, client::mismatch};

/// How often a listing of several pages begins, while its pages differ.
const LISTINGS_MAX: u32 = 3;

impl Client {
    /// The names of all children, sorted, and the Stat of their parent, as the node that is asked has them.
    ///
    /// Up to [`Page::NAMES_MAX`] children come in one answer, which is the state of one moment. More come page by page. If
    /// children are created or deleted between the pages, the client lists again, three times at most; the last listing is
    /// returned as it is, and can then contain names from several moments. The Stat is that of the last page.
    ///
    /// # Errors
    /// `NoNode`; else as [`Client::create`].
    pub async fn children(&self, path: &str) -> Result<(Vec<String>, Stat), ClientError> {
        self.children_with(path, ReadLevel::Local).await
    }

    /// As [`Client::children`], as fresh as `level` says.
    ///
    /// # Errors
    /// As [`Client::get_with`].
    pub async fn children_with(
        &self,
        path: &str,
        level: ReadLevel,
    ) -> Result<(Vec<String>, Stat), ClientError> {
        let (children, stat) = self.list(path, Look::Name, level).await?;
        Ok((children.into_iter().map(|child| child.name).collect(), stat))
    }

    /// As [`Client::children_with`], with the Stat or the value of each child too. A child that the caller may not read has
    /// neither. With values, a page has 256 KiB at most, or one child.
    ///
    /// # Errors
    /// As [`Client::get_with`].
    pub async fn list(
        &self,
        path: &str,
        look: Look,
        level: ReadLevel,
    ) -> Result<(Vec<Child>, Stat), ClientError> {
        let path = Path::new(path)?;
        let mut attempt = 1;
        let first = Page { look, ..Page::default() };
        let (mut listed, mut page, mut began) = (Vec::new(), first.clone(), None);
        loop {
            // A session never goes back, so the first page settles how fresh the others are.
            let level = if began.is_none() { level } else { ReadLevel::Local };
            let read = Read::Children { path: path.clone(), page: page.clone() };
            let Listing { children, next, stat } = match self.read_with(read, level).await.await? {
                ReadOutcome::Children { names, next, stat } => {
                    let child = |name| Child { name, stat: None, data: None };
                    Listing { children: names.into_iter().map(child).collect(), next, stat }
                }
                ReadOutcome::Listed(listing) => *listing,
                other => return Err(mismatch(&other)),
            };
            let moment = (stat.czxid, stat.pzxid);
            if *began.get_or_insert(moment) != moment && attempt < LISTINGS_MAX {
                attempt += 1;
                (listed, page, began) = (Vec::new(), first.clone(), None);
                continue;
            }
            listed.extend(children);
            if next.is_empty() {
                return Ok((listed, stat));
            }
            page.after = next;
        }
    }

    /// Removes a znode and all below it, ephemerals of any session too: in one step or not at all.
    ///
    /// ```no_run
    /// # async fn example(client: client_sdk::Client) -> Result<(), client_sdk::ClientError> {
    /// let deleted = client.delete_tree("/jobs/7").await?;
    /// let emptied = client.delete_tree("/jobs").keep_root().max_znodes(100).await?;
    /// # let _ = (deleted, emptied); Ok(())
    /// # }
    /// ```
    pub fn delete_tree(&self, path: &str) -> DeleteTreeBuilder<'_> {
        let tree =
            Path::new(path).map(|path| DeleteTree { path, version: None, keep_root: false, max_znodes: 0 });
        DeleteTreeBuilder { client: self, tree: tree.map_err(OpError::from), version: None, czxid: None }
    }

    /// How many znodes are below a znode, without itself, and how many bytes their values have. It takes no longer for many.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`; else as [`Client::get_with`].
    pub async fn count(&self, path: &str, level: ReadLevel) -> Result<Usage, ClientError> {
        match self.read_with(Read::Count { path: Path::new(path)? }, level).await.await? {
            ReadOutcome::Counted(usage) => Ok(usage),
            other => Err(mismatch(&other)),
        }
    }

    /// Several reads at one zxid, each on its own: one that fails does not fail the others. [`Read::Get`], [`Read::Exists`] and
    /// [`Read::Children`] (one page) can be among them.
    ///
    /// # Errors
    /// As [`Client::get_with`], without what concerns one of them alone; those whose answers do not fit into one message fail with
    /// `AnswerTooLarge`.
    pub async fn multi_read(
        &self,
        reads: Vec<Read>,
        level: ReadLevel,
    ) -> Result<Vec<Result<ReadOutcome, OpError>>, ClientError> {
        let one =
            |read: &Read| matches!(read, Read::Get { .. } | Read::Exists { .. } | Read::Children { .. });
        if !reads.iter().all(one) {
            let why =
                "a read of several has parts Get, Exists and Children only; ask for the others one by one";
            return Err(OpError::BadArguments(why.to_owned()).into());
        }
        self.enqueue_reads(reads, level).await.await
    }

    /// The quotas at, above and below a znode that the caller may read, with what they count at present.
    ///
    /// # Errors
    /// As [`Client::get_with`].
    pub async fn quotas(&self, path: &str, level: ReadLevel) -> Result<Vec<QuotaAt>, ClientError> {
        let (path, mut all, mut page) = (Path::new(path)?, Vec::new(), Page::default());
        loop {
            let read = Read::Quotas { path: path.clone(), page: page.clone() };
            match self.read_with(read, level).await.await? {
                ReadOutcome::Quotas { quotas, next } => {
                    all.extend(quotas);
                    if next.is_empty() {
                        return Ok(all);
                    }
                    page.after = next;
                }
                other => return Err(mismatch(&other)),
            }
        }
    }

    /// Replaces the quota of a znode; one without bounds removes it.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth` without ADMIN, `LimitExceeded`; else as [`Client::create`].
    pub async fn set_quota(&self, path: &str, quota: Quota) -> Result<QuotaAt, ClientError> {
        match self.submit(Write::SetQuota { path: Path::new(path)?, quota }).await.await? {
            WriteOutcome::QuotaSet(at) => Ok(at),
            other => Err(mismatch(&other)),
        }
    }
}

/// See [`Client::delete_tree`]. Awaited, it gives the number of znodes that were removed.
///
/// # Errors
/// `NoNode`, `BadVersion`, `BadCzxid`; `NoAuth` without DELETE on the parent of any znode that would go; `LimitExceeded` if there are
/// more than [`DeleteTree::ZNODES_MAX`], or than the request allows. Nothing is removed then.
#[must_use = "nothing happens before it is awaited"]
#[derive(Debug)]
pub struct DeleteTreeBuilder<'a> {
    client: &'a Client,
    tree: Result<DeleteTree, OpError>,
    version: Option<i32>,
    czxid: Option<Zxid>,
}

impl DeleteTreeBuilder<'_> {
    /// Only if the root of the subtree has this version.
    pub fn version(self, version: i32) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Only if the root of the subtree is this creation.
    pub fn czxid(self, czxid: Zxid) -> Self {
        Self { czxid: Some(czxid), ..self }
    }

    /// The root stays, and only what is below it goes.
    pub fn keep_root(mut self) -> Self {
        if let Ok(tree) = &mut self.tree {
            tree.keep_root = true;
        }
        self
    }

    /// Only if no more znodes would go.
    pub fn max_znodes(mut self, most: u32) -> Self {
        if let Ok(tree) = &mut self.tree {
            tree.max_znodes = most;
        }
        self
    }

    async fn run(self) -> Result<u64, ClientError> {
        let tree = DeleteTree { version: Expected::new(self.version, self.czxid), ..self.tree? };
        match self.client.submit(Write::DeleteTree(tree)).await.await? {
            WriteOutcome::TreeDeleted { znodes } => Ok(znodes),
            other => Err(mismatch(&other)),
        }
    }
}

impl<'a> IntoFuture for DeleteTreeBuilder<'a> {
    type Output = Result<u64, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
